"""Archive: samples go to Parquet files before Kafka forgets them."""

STAGE = "archive"
