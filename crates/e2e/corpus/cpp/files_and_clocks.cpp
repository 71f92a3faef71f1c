#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>

int main()
{
    std::ofstream("note.txt") << "text\n" << 42;
    std::string word;
    std::ifstream note("note.txt");
    while (note >> word)
        std::cout << word << ' ';
    std::set<std::string> names;
    for (const auto &entry : std::filesystem::directory_iterator("."))
        names.insert(entry.path().filename());
    for (const auto &name : names)
        std::cout << name << ' ';
    std::cout << std::filesystem::current_path() << ' ' << std::filesystem::is_empty("/tmp") << '\n';
    auto start = std::chrono::steady_clock::now();
    auto age = std::filesystem::file_time_type::clock::now() - std::filesystem::last_write_time("note.txt");
    std::cout << (start.time_since_epoch().count() > 0) << (std::chrono::steady_clock::now() >= start) << (age < std::chrono::seconds(30)) << '\n';
}
