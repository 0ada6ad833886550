"""`maskrcnn-jax models`: the models that come with the package."""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """The command has no options."""


def run(arguments: Namespace) -> None:
    """Prints a table: name, what it is for, licence, size, metrics on its validation images."""
    from rich.console import Console
    from rich.table import Table

    from maskrcnn_jax.zoo import models

    table = Table("name", "what it finds", "licence of the weights", "MB", "validation", show_lines=True)
    for model in models():
        about = model.about
        metrics = "\n".join(f"{name} {value}" for name, value in about.get("metrics", {}).items())
        licence = "\n".join(filter(None, (about.get("licence"), about.get("terms"))))
        size = about.get("object_size")
        finds = "\n".join(filter(None, (about.get("summary"), size and f"median size {size:g} px")))
        table.add_row(model.name, finds, licence, f"{model.megabytes:.1f}", metrics)
    console = Console()
    console.print(table)
    console.print("their cards: ", *(str(model.folder / "card.md") for model in models()), sep="\n  ")
