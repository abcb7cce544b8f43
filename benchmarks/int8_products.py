"""How far the products of 8 bits are from float64, with inputs of 8 bits and of 7.

    python -m benchmarks.int8_products [--rows 32]

torch's quantised products add pairs of products of two bytes in 16 bits on processors without VNNI, and such sums
overflow where inputs take all of their 8 bits. `hf_elmo.quantize` gives inputs 7 bits there. Told is the norm of the
error in percent of the product's, for the sizes of an LSTM's products, of random inputs with a normal distribution and
weights with a uniform one; beside it what rounding the weights alone costs, and the way that hf_elmo takes here.
"""

from __future__ import annotations

import argparse

import torch

from hf_elmo.model.products import matrix_products

from .harness.report import table

SIZES = {"small": (2560, 192), "small, projection": (192, 640), "original": (16384, 512)}


def errors(out: int, inputs: int, rows: int) -> dict[str, float]:
    """Errors in percent by way."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(out, inputs, generator=generator) - 0.5
    given = torch.randn(rows, inputs, generator=generator)
    exact = given.double() @ weight.double().t()
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    quantized = torch.quantize_per_channel(weight, scale.flatten(), torch.zeros(out, dtype=torch.long), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    found = {
        "weights rounded": given.double() @ ((weight / scale).round() * scale).double().t(),
        "8 bits": torch.ops.quantized.linear_dynamic(given, packed, False),
        "7 bits": torch.ops.quantized.linear_dynamic(given, packed, True),
        "hf_elmo": matrix_products.Int8Product(weight)(given),
    }
    return {name: 100 * float((each.double() - exact).norm() / exact.norm()) for name, each in found.items()}


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Measures with the options of a command line: errors in percent by product and way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32)
    options = parser.parse_args(arguments)
    results = {name: errors(*sizes, options.rows) for name, sizes in SIZES.items()}
    names = list(next(iter(results.values())))
    lines = [[name, *(f"{row[each]:.2f}" for each in names)] for name, row in results.items()]
    print(table(["product", *names], lines))
    return results


if __name__ == "__main__":
    main()
