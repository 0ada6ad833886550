"""The peer of `input_pipeline.py` that needs torchvision: transforms v2 in a DataLoader.

Started by that benchmark as `python input_pipeline_torch.py RECORDS.npz SIDE,SIDE,... CROP CANVAS WORKERS`.
For each number of samples on a line of standard input it answers with the images per second.
"""

import json
import sys
import time

import numpy as np
import torch
import torchvision
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2


class Samples(torch.utils.data.Dataset):
    """A crop of an image and a bitmask for each of its instances, resized, flipped, boxed and padded.

    As torchvision's detection references have it: masks are `tv_tensors.Mask` (N, H, W). They are made from
    the cropped label map, which is faster than to crop bitmasks of the whole image.
    """

    def __init__(self, path: str, sides: list[int], crop: int, canvas: int):
        with np.load(path) as arrays:
            self.images = [torch.from_numpy(arrays[f"image{i}"]) for i in range(len(arrays) // 2)]
            self.layers = [torch.from_numpy(arrays[f"layers{i}"]) for i in range(len(arrays) // 2)]
        self.crop, self.canvas, self.count = crop, canvas, 0
        self.resize = v2.RandomChoice([v2.Resize(side) for side in sides])
        self.flip = v2.RandomHorizontalFlip()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        torch.manual_seed(number)
        image, layers = (x[number % len(self.images)] for x in (self.images, self.layers))
        top, left = (int(torch.randint(side - self.crop + 1, ())) for side in image.shape[1:])
        window = (slice(None), slice(top, top + self.crop), slice(left, left + self.crop))
        image, layers = tv_tensors.Image(image[window]), layers[window]
        masks = torch.cat([layer == torch.unique(layer[layer > 0])[:, None, None] for layer in layers])
        image, masks = self.flip(self.resize(image, tv_tensors.Mask(masks.to(torch.uint8))))
        masks = masks[masks.flatten(1).amax(dim=1) > 0]
        boxes = masks_to_boxes(masks)
        image = v2.functional.pad(image, [0, 0, self.canvas - image.shape[2], self.canvas - image.shape[1]])
        return image[:, :1, :1], boxes, masks.shape[0]  # made, but not worth sending


def main() -> None:
    path, sides, crop, canvas, workers = sys.argv[1:]
    torch.set_num_threads(1)
    samples = Samples(path, [int(side) for side in sides.split(",")], int(crop), int(canvas))
    samples.count = 2 * int(workers)
    loader = torch.utils.data.DataLoader(samples, batch_size=None, num_workers=int(workers))
    list(loader)
    print(json.dumps(torchvision.__version__), flush=True)
    for line in sys.stdin:
        samples.count = int(line)
        loader = torch.utils.data.DataLoader(samples, batch_size=None, num_workers=int(workers))
        iterator = iter(loader)
        next(iterator)
        start = time.perf_counter()
        taken = sum(1 for _ in iterator)
        print(json.dumps(taken / (time.perf_counter() - start)), flush=True)


if __name__ == "__main__":
    main()
