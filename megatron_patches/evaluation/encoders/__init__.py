"""What encoders are asked: texts whose tokens they fill in, and tasks on which a copy of them is fine-tuned."""
