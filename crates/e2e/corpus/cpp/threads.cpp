#include <atomic>
#include <future>
#include <iostream>
#include <mutex>
#include <thread>
#include <vector>

int main()
{
    std::atomic<int> total = 0;
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&] { for (int j = 0; j < 1000; j++) total++; });
    threads.clear();
    auto result = std::async(std::launch::async, []() -> int { throw std::string("through a future"); });
    try {
        result.get();
    } catch (const std::string &text) {
        std::cout << text << '\n';
    }
    std::cout << total << ' ' << std::thread::hardware_concurrency() << '\n';
}
