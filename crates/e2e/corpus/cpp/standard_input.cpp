// corpus: stdin = "3 4.5 word\na whole line\nlast"
#include <iostream>
#include <string>

int main()
{
    int whole;
    double part;
    std::string word, line;
    std::cin >> whole >> part >> word;
    std::getline(std::cin, line);
    std::getline(std::cin, line);
    std::cout << whole << ' ' << part << ' ' << word << " <" << line << ">\n";
    std::cin >> word;
    std::cout << word << ' ' << std::cin.eof() << ' ' << static_cast<bool>(std::cin >> whole) << '\n';
    std::cerr << "unbuffered ";
    std::clog << "buffered\n";
}
