"""What tools/kills is made of: `subject` is trained, `process` is killed, `compare` tells what two trainings left."""
