# Runs until the time limit; the result has the output until then.
# corpus: cause = "wall_time"
# corpus: limits = { wall_time_ms = 8000 }
import time

print("before")
time.sleep(1000)
