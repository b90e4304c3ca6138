"""The rim to Ray and Optuna: trials, samplers, runs."""
