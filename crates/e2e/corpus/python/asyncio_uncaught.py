# corpus: exit_code = 1
import asyncio


async def fail():
    raise ValueError("in a coroutine")


async def main():
    await fail()


asyncio.run(main())
