# What a shell on a host of the cluster needs; ~/.bashrc reads it.
export PATH="$HOME/ms_automl/.venv/bin:$PATH"
export RAY_AUTH_MODE=token
if [ -d "$HOME/mlflow" ]; then # the head
    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000
fi
