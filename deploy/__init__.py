"""What runs beside Penstock: Grafana's dashboards as code, and files for Grafana, Prometheus and Alertmanager."""
