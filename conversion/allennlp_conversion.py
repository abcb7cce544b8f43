"""An archive of AllenNLP becomes a model folder: of the whole tagger, or of the ELMo inside."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from ..hub.published_models import origin_of
from ..model.modeling_elmo import ElmoModel
from .allennlp_archive import OPTIONS_ENDS, VOCABULARY_FOLDER, Archive, find_elmo, opened_archive
from .allennlp_tagger import TAGGERS, tagger_of
from .bilm_files import OptionsSource
from .files import InputFile, check_new_folder, paths_of
from .model_folder import write_model_folder


def convert_allennlp_archive(
    source: str | Path,
    destination: str | Path,
    *,
    options: OptionsSource | None = None,
    only_elmo: bool = False,
    published: str | None = None,
) -> None:
    """Makes a model folder of an archive: of a whole tagger, or else of the ELMo inside, with a warning.

    Args:
        source: As in `load_allennlp_elmo`.
        destination: The folder, which must not exist yet, or be empty.
        options: As in `load_allennlp_elmo`.
        only_elmo: Take the ELMo out of a tagger, too, without a projection that follows its mix (`projection_dim`).
        published: The name of the published model that it is, for its card, where neither checksum nor name of a file
            says so (`hf_elmo.hub.published_models`).

    Raises:
        ConversionError: as `load_allennlp_elmo` and `load_allennlp_tagger`, or if there is something at `destination`.
        ValueError: if there is no published model of that name.
        OSError: if a file cannot be read or written. Nothing is left of the folder then.
    """
    check_new_folder(destination)
    with opened_archive(source) as archive:
        if archive.model_type in TAGGERS and not only_elmo:
            tagger = tagger_of(archive, options)
        else:
            tagger, found = None, find_elmo(archive, options)
            rest = len(archive.state) - len(found.keys)
            if rest and not only_elmo:
                warnings.warn(
                    f"{archive.name} holds a model of type {archive.model_type!r}, of which only the ELMo is taken "
                    f"({found.prefix}...); {rest} arrays of the task's own are left out.",
                    stacklevel=2,
                )
        read = paths_of(source, _read_files(archive, options, with_vocabulary=tagger is not None))
    origin = origin_of("allennlp-archive", read, published)
    if tagger is not None:
        write_model_folder(tagger[0], None, destination, tokenizer=tagger[1], origin=origin)
        return
    with torch.device("meta"):
        model = ElmoModel(found.config)
    model.load_state_dict(found.parameters, strict=True, assign=True)
    write_model_folder(model.eval(), None, destination, origin=origin)


def _read_files(archive: Archive, options: OptionsSource | None, with_vocabulary: bool) -> list[InputFile]:
    read = [archive.config_file, archive.weights_file]
    if isinstance(options, (str, Path)):
        read.append(InputFile.at(options))
    elif options is None:
        read += [file for path, file in archive.files.items() if path.endswith(OPTIONS_ENDS)]
    if with_vocabulary:
        read += [file for path, file in archive.files.items() if path.startswith(VOCABULARY_FOLDER + "/")]
    return read
