"""How the page looks. Nothing is fetched from elsewhere: fonts are the system's."""

from __future__ import annotations

from typing import Any

import gradio as gr

CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
#head { align-items: center; }
#head > * { flex: 0 1 auto; }
#head > :first-child { flex: 1 1 260px; }
#language .wrap { flex-wrap: nowrap; }
#head h1 { font-size: 1.15rem; margin: 0; }
#language { max-width: 240px; }
#language .wrap { justify-content: flex-end; }
#model-state .box { font-size: .85rem; padding: 4px 12px; }
.switches { align-items: center; }
.switches > * { flex: 1 1 auto !important; width: auto !important; min-width: 0 !important; }
.html-container { padding: 0 !important; }
.tight { gap: 8px !important; }
.box { display: flex; flex-wrap: wrap; gap: 2px 12px; justify-content: space-between; align-items: baseline;
  padding: 8px 12px; border-radius: 8px; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
.box small { color: var(--body-text-color-subdued); }
.box .bar { flex-basis: 100%; height: 6px; border-radius: 3px; background: var(--border-color-primary);
  overflow: hidden; margin-top: 4px; }
.box .bar i { display: block; height: 100%; background: var(--color-accent); transition: width .2s; }
.box.error { border-color: #dc2626; background: #fef2f2; color: #991b1b; }
.dark .box.error { background: #450a0a; color: #fecaca; }
.previews { display: grid; gap: 8px; margin-top: 8px; }
.previews.n2 { grid-template-columns: 1fr 1fr; }
.previews img { width: 100%; max-height: 520px; object-fit: contain; border-radius: 8px;
  image-rendering: auto; background: var(--background-fill-secondary); }
.examples { gap: 6px !important; align-items: center; }
.examples button { flex: 0 1 auto; font-weight: 400; white-space: normal; text-align: left; min-width: 0 !important; }
.switches { flex-wrap: wrap; }
.examples .name { flex: 0 0 auto; min-width: 0 !important; width: auto !important;
  color: var(--body-text-color-subdued); font-size: .85rem; padding: 0; }
.ratio label, #talk-reply label { padding: 4px 10px; }
#talk-previews .previews img { max-height: 260px; }
#talk-chat .message { overflow-wrap: anywhere; }
#draw-result img, #edit-result img { min-height: 0; }
#draw-result .grid-wrap, #edit-result .grid-wrap { max-height: none !important; }
/* A gallery's label lies over its pictures otherwise. */
.named .grid-wrap { padding-top: 40px; }
/* It would send the picture to a stranger's server. */
#talk-chat button[title='Share'], #talk-chat button[aria-label='Share'] { display: none; }
.settings { width: 100%; border-collapse: collapse; font-size: .9rem; }
.settings, .settings tr, .settings td { border: 0 !important; }
.settings td { padding: 5px 10px; border-bottom: 1px solid var(--border-color-primary) !important;
  overflow-wrap: anywhere; vertical-align: top; }
.settings td:first-child { color: var(--body-text-color-subdued); white-space: nowrap; width: 1%; }
@media (max-width: 640px) {
  .tabs button { padding: 0 6px !important; }
  .column { min-width: 0 !important; max-width: 100%; }
  .tabs, .tabitem, .tabitem > .column, .tabitem .row, .half { min-width: 0 !important; max-width: 100%; }
  .tabitem .block { min-width: 0 !important; }
  #history-shown .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
  .half { flex: 0 0 100% !important; }
  .tabitem button.lg, .tabitem button.sm { min-height: 42px; flex-shrink: 0; }
  .examples button.sm { min-height: 36px !important; }
  #language .wrap { justify-content: flex-start; }
  /* The result comes right below the button, the knobs after it. */
  .asking { display: contents !important; }
  .asking > * { order: 1; flex: 0 0 auto !important; width: 100%; }
  .showing { order: 2; flex: 0 0 100% !important; }
  .asking > .turning { order: 3; }
}
"""

LITTLE = """
#draw-result img, #edit-result img, #edit-slider img, #history-shown img, .previews img { image-rendering: pixelated; }
.previews.n1 { max-width: 384px; }
.previews.n2, .n2 .grid-container { max-width: 528px; }
#draw-result .grid-container, #edit-result .grid-container { max-width: 400px; }
#draw-result .grid-container:has(> :nth-child(2)), #edit-result .grid-container { max-width: 540px; }
#edit-slider { max-width: 386px; }
#history-shown .preview img { max-width: 384px; max-height: 384px; margin: auto; }
"""
"""More of it for a model of little pictures: they are shown three times as large, and not blurred."""

HEAD = """<style>
.gradio-container, .gradio-container .main, .gradio-container .wrap:has(> main), .gradio-container main {
  box-sizing: border-box !important; width: 100% !important; min-width: 0 !important; max-width: min(1280px, 100vw);
  margin: 0 auto; }
@media (max-width: 640px) {
  .gradio-container .main { padding: 10px !important; }
}
</style>"""
"""Gradio puts a prefix before every selector of `CSS`, so that its own containers are out of reach there."""

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif")
MONO = ("ui-monospace", "Consolas", "monospace")


def theme() -> Any:
    soft = gr.themes.Soft(primary_hue="orange", neutral_hue="stone", font=FONTS, font_mono=MONO)
    return soft.set(
        block_title_background_fill="transparent",
        block_title_padding="0",
        block_title_text_color="*body_text_color",
        block_label_background_fill="*background_fill_primary",
        block_label_text_color="*body_text_color_subdued",
        block_border_width="1px",
        block_shadow="none",
    )
