"""``python -m coco_kp``."""

from coco_kp.cli.main import main

main()
