"""Pictures as SVG inside the page: coloured by the page's style sheet, so that they follow light, dark and print."""
