"""A report as one HTML page: style sheet, sections and tables, drawings as inline SVG."""
