# corpus: stdin = "Ada\n36\n"
name = input("name? ")
age = int(input())
print(f"\n{name} is {age}")
try:
    input("more? ")
except EOFError as error:
    print("\nend:", error)
