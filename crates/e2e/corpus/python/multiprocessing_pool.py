import multiprocessing


def square(number):
    return number * number


def fail(number):
    raise ValueError(f"job {number}")


if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(10)))
        print(sorted(pool.imap_unordered(square, range(5))))
        try:
            pool.apply(fail, (3,))
        except ValueError as error:
            print(error, type(error.__cause__).__name__)
