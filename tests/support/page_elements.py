"""What is in a page, read without a browser."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Elements with their attributes, and the text, of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]
