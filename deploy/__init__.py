"""What runs beside Penstock, as code: Grafana's dashboards, Prometheus's rules, Alertmanager's routes."""
