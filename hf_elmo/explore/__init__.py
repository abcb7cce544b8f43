"""What people look at: words compared, plots, the demo."""
