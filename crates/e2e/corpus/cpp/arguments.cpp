// corpus: args = ["alpha", "two words", "", "é"]
// corpus: env = { GIVEN = "a value" }
// corpus: exit_code = 255
#include <cstdlib>
#include <iostream>

int main(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        std::cout << i << " <" << argv[i] << ">\n";
    std::cout << std::getenv("GIVEN") << ' ' << (std::getenv("MISSING") == nullptr) << '\n';
    return -1;
}
