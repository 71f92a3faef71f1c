# corpus: env = { TZ = "XYZ-3" }
import datetime
import time

print(time.tzname, time.timezone, time.localtime(0).tm_hour, datetime.datetime.fromtimestamp(86400))
