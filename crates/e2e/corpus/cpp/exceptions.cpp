#include <iostream>
#include <stdexcept>
#include <vector>

struct Guard {
    const char *name;
    ~Guard() { std::cout << "leaving " << name << '\n'; }
};

void fail(int depth)
{
    Guard guard{depth == 0 ? "the innermost" : "an outer"};
    if (depth == 0)
        std::vector<int>(3).at(7) = 1;
    fail(depth - 1);
}

int main()
{
    try {
        fail(2);
    } catch (const std::out_of_range &error) {
        std::cout << error.what() << '\n';
    }
    try {
        std::throw_with_nested(std::logic_error("nested"));
    } catch (const std::exception &error) {
        std::cout << error.what() << '\n';
    }
}
