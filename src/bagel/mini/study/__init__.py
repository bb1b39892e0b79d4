"""The study: what the method's claims come to at the size of `mini`. Each question has a command that leaves one small
JSON file, and `page` turns the files into docs/study.md.

losses       (a) MoT, MoE and dense layers side by side: losses.json
checkpoints  (b) success of every checkpoint of a run: checkpoints.json
seeing       (c) editing from latents and ViT, latents, ViT: seeing.json
knobs        (d) success by every knob, and pictures: knobs.json, knob-*.png
"""
