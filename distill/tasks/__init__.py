"""What training, export and reports need to know of a task. Nothing outside this folder depends on which task it is."""
