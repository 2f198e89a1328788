"""The spatial ETL engine: definitions, the streaming engine and its nodes. Knows neither Prefect nor checkpoints."""
