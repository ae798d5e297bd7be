"""``python -m coco_kp``."""

from coco_kp.cli.start import main

main()
