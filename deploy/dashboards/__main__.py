"""Writes the files that Grafana reads."""

from deploy.dashboards import FOLDER, rendered


def main() -> None:
    """Write every dashboard anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
