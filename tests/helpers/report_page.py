"""A report as text, and its elements."""

from html.parser import HTMLParser

from diffusion.report import page


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._inside = [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def written(*folders):
    return page.write(folders).read_text(encoding="utf-8")
