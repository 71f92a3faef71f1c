# Runs until it is stopped; what it printed is kept.
# corpus: cause = "wall_time"
# corpus: limits = { wall_time_ms = 8000 }
import time

print("before")
time.sleep(1000)
