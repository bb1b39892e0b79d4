"""The web page: `bagel ui`. Gradio is imported when the page is built, not before."""
