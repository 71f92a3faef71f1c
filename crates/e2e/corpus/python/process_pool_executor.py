from concurrent.futures import ProcessPoolExecutor


def work(text):
    return text[::-1], __name__


if __name__ == "__main__":
    with ProcessPoolExecutor(1) as pool:
        print(list(pool.map(work, ["abc", "def"])))
