"""What is known of a running run: its figures, Prometheus' page of them, spans, the event loop's lag."""
