"""Train: requests to train anew become runs, and a run one candidate or one recorded failure."""
