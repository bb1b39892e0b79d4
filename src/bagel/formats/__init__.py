"""Files of weights that others have made, read as if they were ours.

gguf     GGUF: the header, and tensors decoded where they are wanted
blocks   its quantised blocks, decoded
coded    safetensors with scales or codes beside their tensors: ComfyUI's fp8, bitsandbytes' nf4, fp4 and int8
source   which files a folder has, or a path means
"""
