"""What coco-kp does when the operating system refuses: the N-th system call on its files fails.

`injector` runs a command with a fault, `faults` says which system calls fail with which errors,
`scenarios` has the commands, `verdict` says whether a run was right, `sweep` runs them all;
``python -m tests.faults`` runs the whole and prints a table. A sample runs with the other tests.
"""
