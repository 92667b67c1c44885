"""The commands for what happens after training: ``export``, ``push``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rlvr_kit.command_options import folder


def export(
    run: Annotated[Path, typer.Argument(help="The run folder.", parser=folder)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder for the model.", parser=folder)],
    kind: Annotated[
        str, typer.Option("--as", help="merged (a whole model) or adapter (LoRA alone).")
    ] = "merged",
    dtype: Annotated[
        str, typer.Option(help="as-trained, float32, bfloat16 or float16; the last two round the weights.")
    ] = "as-trained",
    licence: Annotated[
        str | None, typer.Option(help="The base's licence, if the kit does not know it.")
    ] = None,
) -> None:
    """Write a run's model into a folder for others: weights, tokenizer, prompt, settings, licence and a card."""
    from rlvr_kit.run_folder import Run
    from rlvr_kit.share.export import export as export_model

    made = export_model(Run(run), out, kind, dtype, licence)  # type: ignore[arg-type]  # it checks both
    Console(stderr=True, soft_wrap=True).print(f"exported: {made}", highlight=False, markup=False)


def push(
    model: Annotated[Path, typer.Argument(help="An exported folder.", parser=folder)],
    repo: Annotated[str, typer.Argument(help="Its name on the Hub: you/model.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it.")] = False,
) -> None:
    """Put an exported model on the Hugging Face Hub, with its card; it is private unless --public is given."""
    from rlvr_kit.share.hub import push as push_model

    print(push_model(model, repo, public))
