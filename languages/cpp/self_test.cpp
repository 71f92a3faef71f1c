#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>
#include <string>

int main(int argc, char **argv)
{
    std::istream_iterator<long> numbers(std::cin), end;
    std::cout << "sum of stdin: " << std::accumulate(numbers, end, 0L) << '\n';

    std::cout << "args: ";
    for (int i = 1; i < argc; i++)
        std::cout << argv[i] << (i + 1 < argc ? ", " : "\n");

    std::ofstream("note.txt") << "written by C++\n";
    std::string line;
    std::ifstream note("note.txt");
    std::getline(note, line);
    std::cout << "file: " << line << '\n';

    std::cerr << "this line is not part of it\n";
    return 7;
}
