"""Puts a trained bundle among the models that come with the package, in half precision.

    python benchmarks/ship_model.py --bundle DIR --name nuclei --about about.json [--set FIELD=VALUE ...]

about.json holds `summary`, `licence`, `terms` (null where the use is free) and `metrics`, as
`maskrcnn-jax models` prints them; what the bundle says of its objects' size stays. FIELDs are those of
`MaskRCNNConfig.detection`, chosen on validation images, or `test_zoom` and `mpp`.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import maskrcnn_jax
from maskrcnn_jax.interop.bundle import load_bundle, read_about, save_bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--about", type=Path, required=True)
    parser.add_argument("--set", dest="fields", nargs="*", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    config, params = load_bundle(arguments.bundle)
    values = {name: json.loads(text) for name, text in (field.split("=", 1) for field in arguments.fields)}
    of_model = {name: values.pop(name) for name in ("test_zoom", "mpp") if name in values}
    detection = dataclasses.replace(config.detection, **values)
    config = dataclasses.replace(config, detection=detection, **of_model)
    folder = Path(maskrcnn_jax.__file__).parent / "zoo" / arguments.name
    scratch = folder.with_name(f".{folder.name}")
    about = read_about(arguments.bundle) | json.loads(arguments.about.read_text())
    save_bundle(scratch, config, params, half=True, about=about)
    folder.mkdir(exist_ok=True)
    for path in [*scratch.iterdir()]:
        path.replace(folder / path.name)
    scratch.rmdir()
    print(f"{folder}: {(folder / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
