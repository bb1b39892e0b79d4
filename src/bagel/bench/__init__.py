"""`bagel bench`: what one device can do (copying, products, attention), and how near every job comes to it, in one
run. `python -m bagel.bench` is the same command without the rest of the command line."""
