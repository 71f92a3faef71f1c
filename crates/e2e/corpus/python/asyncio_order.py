import asyncio
import threading


async def worker(name, delay, log):
    log.append(f"{name} starts")
    await asyncio.sleep(delay)
    log.append(f"{name} ends")
    return name


async def main():
    log = []
    tasks = [asyncio.create_task(worker(name, delay, log)) for name, delay in (("a", 0.2), ("b", 0.05), ("c", 0))]
    print([task.get_name() for task in tasks])
    print(await asyncio.gather(*tasks), log)
    print(await asyncio.to_thread(lambda: threading.current_thread() is threading.main_thread()))
    try:
        await asyncio.wait_for(asyncio.sleep(30), 0.02)
    except TimeoutError as error:
        print("timed out")
    return "result"


print(asyncio._get_running_loop(), asyncio.run(main()), type(asyncio.get_event_loop_policy()).__name__)
