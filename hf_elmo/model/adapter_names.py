"""The parts of a task's head under names by which PEFT finds heads.

A head is new, so an adapter is to train and save it whole. PEFT knows heads by their names: `classifier` (or `score`)
for the task types SEQ_CLS and TOKEN_CLS, `qa_outputs` for QUESTION_ANS; it takes every module whose name ends so
(`peft_model.py`). The parts of our heads have other names, which stay, because checkpoints have them. So each part has
a second name with such an ending, which leads to the part itself, and is in no `state_dict`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

#: The attribute of a model that holds the second names.
HOLDER = "head_for_adapters"


class HeadForAdapters(nn.Module):
    """Second names of modules: an attribute is the module of that place in the model, and sets it there.

    Args:
        model: The model.
        places: The place of each module (`"text_scorer"`), by its second name.

    Raises:
        ValueError: for a module within which there are layers of an adapter: PEFT could not load what it saves then.
    """

    def __init__(self, model: nn.Module, places: dict[str, str]):
        super().__init__()
        # Not as modules of this one: they would be found here, too.
        self.__dict__.update(_model=model, _places=places)

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        places = self.__dict__["_places"]
        if name not in places:
            return super().__getattr__(name)
        module = self.__dict__["_model"].get_submodule(places[name])
        if any(hasattr(part, "base_layer") for part in module.modules()):
            parts = "|".join(sorted({place.partition(".")[0] for place in places.values()} - {"elmo"}))
            raise ValueError(
                f"The adapter has layers of its own within {places[name]}, which is new, and is trained and saved "
                f'whole: leave the head out of them, as by exclude_modules=r"({parts})(\\..*)?" in the '
                "configuration of the adapter."
            )
        return module

    def __setattr__(self, name: str, value: Tensor | nn.Module) -> None:
        places = self.__dict__.get("_places", {})
        if name not in places:
            super().__setattr__(name, value)
            return
        parent, _, own_name = places[name].rpartition(".")
        setattr(self.__dict__["_model"].get_submodule(parent), own_name, value)


def second_names(places: list[str], ending: str) -> dict[str, str]:
    """The places of modules by a second name that has the ending, for those whose own name has not."""
    return {f"{place.replace('.', '_')}_{ending}": place for place in places if not place.endswith(ending)}


def named_stand_ins(names: dict[str, str], prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Second names as `named_modules` gives names, with modules in the places of theirs that hold nothing.

    PEFT asks for the names alone, and looks for the modules itself. Whoever collects parameters finds each one once.
    """
    for name in names:
        yield ".".join(filter(None, [prefix, HOLDER, name])), nn.Module()
