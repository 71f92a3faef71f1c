// Counts words: cloude run examples/words.cpp < README.md
#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <vector>

int main()
{
    std::map<std::string, int> counts;
    for (std::string word; std::cin >> word;)
        counts[word]++;
    std::vector<std::pair<std::string, int>> sorted(counts.begin(), counts.end());
    std::stable_sort(sorted.begin(), sorted.end(), [](auto &a, auto &b) { return a.second > b.second; });
    sorted.resize(std::min<size_t>(sorted.size(), 10));
    for (auto &[word, count] : sorted)
        std::cout << count << '\t' << word << '\n';
}
