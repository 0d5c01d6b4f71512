"""The application under test is the node that runs beside."""

app = None
