"""Command lines that ask for what is not possible, each with words of the sentence that is due.

They are split as a shell would. `lay_out` makes the files that they name.
"""

from pathlib import Path

from PIL import Image

_UPSCALE = "upscale a.png -o b.png"
_MOST = "9" * 18
_ENDLESS = "9" * 5000

# Wrong usage: nothing has to be looked at to know. Exit code 2.
USAGE: dict[str, str] = {
    "": "COMMAND",
    "restore a.png": "invalid choice: 'restore'",
    "--model nano": "COMMAND",
    "upscale": "required: IN, -o/--out",
    "upscale a.png": "required: -o/--out",
    "upscale -o b.png": "required: IN",
    "upscale '' -o b.png": "argument IN: expected a name",
    "upscale a.png '' -o out": "argument IN: expected a name",
    "upscale a.png -o ''": "argument -o/--out: expected a name",
    f"{_UPSCALE} --model ''": "argument --model: expected a name",
    f"{_UPSCALE} --scale 0": "scale must be within 1 .. 8, not 0",
    f"{_UPSCALE} --scale -0.0": "scale must be within 1 .. 8, not -0",
    f"{_UPSCALE} --scale 0.5": "not 0.5",
    f"{_UPSCALE} --scale 9": "not 9",
    f"{_UPSCALE} --scale 8.0001": "not 8.0001",
    f"{_UPSCALE} --scale=-1": "not -1",
    f"{_UPSCALE} --scale nan": "not nan",
    f"{_UPSCALE} --scale inf": "not inf",
    f"{_UPSCALE} --scale 1e400": "not inf",
    f"{_UPSCALE} --scale 4x": "argument --scale",
    f"{_UPSCALE} --scale 0x4": "argument --scale",
    f"{_UPSCALE} --scale ''": "argument --scale",
    f"{_UPSCALE} --scale": "expected one argument",
    f"{_UPSCALE} --scale 2 --size 3x3": "not allowed with",
    f"{_UPSCALE} --scale 2 --longest-side 30": "not allowed with",
    f"{_UPSCALE} --longest-side 0": "argument --longest-side",
    f"{_UPSCALE} --longest-side -5": "argument --longest-side",
    f"{_UPSCALE} --longest-side 1e3": "argument --longest-side",
    f"{_UPSCALE} --longest-side 100001": "within 1 .. 100000, not 100001",
    f"{_UPSCALE} --longest-side {_MOST}": "within 1 .. 100000",
    f"{_UPSCALE} --longest-side {_ENDLESS}": "not '9999",
    f"{_UPSCALE} --size 12": "WIDTHxHEIGHT",
    f"{_UPSCALE} --size 1x1x1": "WIDTHxHEIGHT",
    f"{_UPSCALE} --size x": "WIDTHxHEIGHT",
    f"{_UPSCALE} --size=-3x4": "WIDTHxHEIGHT",
    f"{_UPSCALE} --size ²x²": "WIDTHxHEIGHT",
    f"{_UPSCALE} --size ٣x٣": "WIDTHxHEIGHT",
    f"{_UPSCALE} --size 0x4": "both sides of size must be within 1 .. 100000, not 0",
    f"{_UPSCALE} --size 99999999999x5": "both sides of size must be within",
    f"{_UPSCALE} --format gif": "format must be one of .png",
    f"{_UPSCALE} --format ''": "format must be one of .png",
    f"{_UPSCALE} --format ../png": "format must be one of .png",
    f"{_UPSCALE} --format heic": "format must be one of .png",
    f"{_UPSCALE} --tile none": "tile must be auto, off or a number of pixels",
    f"{_UPSCALE} --tile 8": "tile must be at least 16 px, not 8",
    f"{_UPSCALE} --tile -64": "argument --tile",
    f"{_UPSCALE} --tile 64.0": "tile must be auto, off or a number of pixels",
    f"{_UPSCALE} --tile {_ENDLESS}": "tile must be auto, off or a number of pixels",
    f"{_UPSCALE} --batch 0": "at least 1, not '0'",
    f"{_UPSCALE} --batch 0x10": "at least 1, not '0x10'",
    f"{_UPSCALE} --batch ²": "at least 1, not '²'",
    f"{_UPSCALE} --batch 1_0": "at least 1, not '1_0'",
    f"{_UPSCALE} --batch 1000000000": "batch must be within 1 .. 1024, not 1000000000",
    f"{_UPSCALE} --shards 0": "argument --shards",
    f"{_UPSCALE} --seed -1": "argument --seed",
    f"{_UPSCALE} --seed 1.5": "argument --seed",
    f"{_UPSCALE} --seed {_ENDLESS}": "argument --seed",
    f"{_UPSCALE} --color red": "invalid choice: 'red'",
    f"{_UPSCALE} --precision fp16": "invalid choice: 'fp16'",
    f"{_UPSCALE} --quirks v0": "invalid choice: 'v0'",
    f"{_UPSCALE} --quirks published --size 3x3": "knows a scale only",
    f"{_UPSCALE} --colour lab": "unrecognized arguments: --colour",
    "convert --out c": "--base --perceptual is required",
    "convert --base b": "required: --out",
    "convert --base b --perceptual p --out c": "not allowed with",
    "convert --base '' --out c": "argument --base: expected a name",
    "convert --base b --out ''": "argument --out: expected a name",
    "convert --base b --out c --mid-timestep -1": "argument --mid-timestep",
    "convert --base b --out c --process-size 0": "argument --process-size",
    "convert --base b --out c --precision int4": "invalid choice: 'int4'",
    "convert --perceptual p --out c --prompt x": "--prompt: of a model with --base",
    "export --out e": "required: --model",
    "export --model '' --out e": "argument --model: expected a name",
    "info": "required: MODEL",
    "info ''": "argument MODEL: expected a name",
    "info nano nano": "unrecognized arguments: nano",
    "timestep --model nano": "required: --data",
    "timestep --model nano --data folder --images 0": "argument --images",
    "timestep --model nano --data folder --criterion eq8": "invalid choice: 'eq8'",
    "timestep --model nano --data folder --write": "--write: nano",
    "degrade folder -o ''": "argument -o/--out: expected a name",
    "degrade folder -o d --crop 0": "argument --crop",
    "degrade folder -o d --preset 5": "invalid choice: 5",
    "degrade folder -o d --seed -1": "argument --seed",
    "eval --hr folder": "give outputs with --sr",
    "eval --model nano --hr folder": "--model needs inputs",
    "eval --sr folder --hr folder --grid-period 0": "argument --grid-period",
    "demo --sample x": "invalid choice: 'x'",
    "demo -o ''": "argument -o/--out: expected a name",
}

# What a look at the names shows. Exit code 1, before a model is loaded.
NAMES: dict[str, str] = {
    "upscale nothere.png -o b.png": "nothere.png does not exist",
    "upscale nothere.png norhere.png -o out": "nothere.png does not exist, nor do 1 others",
    "upscale '*.bmp' -o b.png": "nothing matches *.bmp",
    "upscale '[' -o b.png": "nothing matches [",
    "upscale empty -o out": "no images in empty",
    "upscale list.txt -o list.txt": "list.txt is a file; 1 inputs need a folder",
    "upscale a.png folder -o b.png": "b.png names one image, and there are 2 inputs",
    "upscale a.png -o a.png": "a.png is an input and would be overwritten",
    "upscale a.png -o ./folder/../a.png": "is an input and would be overwritten",
    "upscale a.png -o link.png": "is an input and would be overwritten",
    "upscale a.png -o list.txt/x.png": "list.txt is not a folder",
    "upscale a.png -o list.txt/x/y": "list.txt is not a folder",
    "upscale a.png -o x.gif": "cannot write .gif",
    "upscale a.png -o x.pdf": "cannot write .pdf",
    "upscale a.png -o x.jpg --format png": "x.jpg contradicts --format png",
    "upscale a.png -o b.png --model nowhere": "'nowhere' is not a model",
    "upscale a.png -o b.png --model a.png": "'a.png' is not a model",
    "upscale a.png -o b.png --model empty": "empty is not a converted model",
    "info nowhere": "'nowhere' is not a model",
    "info empty": "empty is not a converted model",
    "export --model nowhere --out e": "'nowhere' is not a model",
    "export --model nano --out folder": "folder exists already",
    "convert --base nowhere --out c": "nowhere is neither a folder nor a hub id",
    "convert --base a.png --out c": "a.png is a file; expected a diffusers folder or a hub id",
    "convert --base empty --out c": "empty is not a diffusers model",
    "convert --base empty --out folder": "folder exists already",
    "convert --perceptual nowhere --out c": "nowhere is not a folder",
    "convert --perceptual empty --out c": "empty has no perceptual network",
    "timestep --model nano --data nowhere": "nowhere does not exist",
    "timestep --model nano --data empty": "empty holds no images",
    "timestep --model nano --data folder --resolution 7": "7 is not a multiple",
    "degrade nowhere -o d": "nowhere does not exist",
    "degrade empty -o d": "empty holds no images",
    "degrade folder -o d --crop 99999999": "the crop must be a multiple of the scale 4",
    "degrade folder -o a.png": "a.png is not a folder",
    "eval --sr nowhere --hr folder": "nowhere is not a folder",
    "eval --sr folder --hr nowhere": "nowhere is not a folder",
    "eval --sr empty --hr folder": "empty holds no images",
}


def lay_out(folder: Path) -> None:
    """The files that the command lines name."""
    image = Image.new("RGB", (8, 8), "teal")
    for name in ("empty", "folder"):
        (folder / name).mkdir()
    image.save(folder / "a.png")
    image.save(folder / "folder" / "b.png")
    (folder / "link.png").symlink_to("a.png")
    (folder / "list.txt").write_text("a.png\n")
