"""Write the card of the bundled network `shakespeare`: README.md beside the weights, from training.json and judge.json.

    python benchmarks/train/shakespeare_card.py --network solverkit/networks/shakespeare
"""

# ruff: noqa: E501  (lines of a Markdown table)
from __future__ import annotations

import argparse
import json
from pathlib import Path

import solverkit as sk

CARD = """# shakespeare

A masked character model of Shakespeare's plays: a bidirectional transformer ({parameters:,} parameters, {width} wide, {depth} blocks,
rotary positions) on {vocabulary} characters and a mask, {length} at a time, that is told no time (MDLM, RADD).

    import solverkit as sk
    model = sk.load("shakespeare").with_prompt("ROMEO:")
    print(model.decode(sk.sample(model, "ancestral", nfe=64, num_samples=1).x[0]))

| | |
|---|---|
| data | "tiny Shakespeare", 1115394 characters (karpathy/char-rnn; the plays are in the public domain); the text is not part of this repository |
| training | {steps} steps of {batch} x {length} characters ({epochs:.0f} epochs), AdamW, lr {learning_rate}, dropout {dropout}, {seconds} s on {device} |
| chosen by | the bound on the last 2 % of the first nine tenths, among averaged weights along the run; nothing was chosen on the last tenth |
| **bound on the last tenth, bits a character** | **{held_out_bits_per_character:.3f} +- {standard_error:.3f}** ({held_out_windows} windows of {length}, {masks_per_window} masks each, float16 weights) |
| unigram, trigram of the first nine tenths on the last | {unigram_bits_per_character:.3f}, {trigram_bits_per_character:.3f} |
| the 5-gram that judges samples (judge.safetensors) | {judge:.3f} |

The figure is an upper bound on -log2 p of a window that begins without what came before it. Made by `benchmarks/train/shakespeare.py`,
`shakespeare_judge.py` and `shakespeare_card.py`. Licence of the weights: Apache-2.0.

A sample (`ancestral`, 256 evaluations, seed 0, prompt "ROMEO:"):

```text
{sample}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    folder: Path = parser.parse_args().network
    record, config, judge = (json.loads((folder / f"{name}.json").read_text()) for name in ("training", "config", "judge"))
    model = sk.load(folder).with_prompt("ROMEO:")  # type: ignore[attr-defined]
    text = model.decode(sk.sample(model, "ancestral", nfe=256, num_samples=1).x[0])
    filled = CARD.format(**{**config, **record}, judge=judge["bits_per_character"], sample=text.strip())
    (folder / "README.md").write_text(filled, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
