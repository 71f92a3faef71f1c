; x86-64 Linux system calls, no C library: the entry point is _start.
SYS_READ equ 0
SYS_WRITE equ 1
SYS_OPEN equ 2
SYS_LSEEK equ 8
SYS_EXIT equ 60
STDOUT equ 1
STDERR equ 2
O_RDWR_CREAT equ 0o102

; print FD, ADDRESS, LENGTH
%macro print 3
    mov edi, %1
    mov rsi, %2
    mov rdx, %3
    mov eax, SYS_WRITE
    syscall
%endmacro

section .rodata
    sum_text db "sum of stdin: "
    sum_length equ $ - sum_text
    args_text db "args: "
    args_length equ $ - args_text
    comma db ", "
    newline db 10
    file_name db "note.txt", 0
    file_text db "file: "
    file_length equ $ - file_text
    note db "written by Assembly", 10
    note_length equ $ - note
    error_text db "this line is not part of it", 10
    error_length equ $ - error_text

section .bss
    buffer resb 4096
    digits resb 20

section .text
global _start

_start:
    mov r12, [rsp]          ; argc
    lea r13, [rsp + 16]     ; argv + 1

    ; r14 is the sum of stdin, rbx the number under construction.
    xor r14, r14
    xor ebx, ebx
.read:
    xor edi, edi
    mov rsi, buffer
    mov edx, 4096
    xor eax, eax
    syscall
    test rax, rax
    jle .print_sum
    mov rsi, buffer
    lea rdi, [rsi + rax]
.character:
    movzx ecx, byte [rsi]
    inc rsi
    cmp ecx, 10
    je .end_of_line
    imul rbx, rbx, 10
    lea rbx, [rbx + rcx - '0']
    jmp .next
.end_of_line:
    add r14, rbx
    xor ebx, ebx
.next:
    cmp rsi, rdi
    jb .character
    jmp .read

.print_sum:
    print STDOUT, sum_text, sum_length
    lea rsi, [digits + 20]
    mov rax, r14
    mov ecx, 10
.digit:
    xor edx, edx
    div rcx
    add dl, '0'
    dec rsi
    mov [rsi], dl
    test rax, rax
    jnz .digit
    lea rdx, [digits + 20]
    sub rdx, rsi
    mov edi, STDOUT
    mov eax, SYS_WRITE
    syscall
    print STDOUT, newline, 1

    print STDOUT, args_text, args_length
.argument:
    dec r12
    jz .end_of_arguments
    mov rsi, [r13]
    add r13, 8
    xor edx, edx
.length:
    cmp byte [rsi + rdx], 0
    je .print_argument
    inc rdx
    jmp .length
.print_argument:
    mov edi, STDOUT
    mov eax, SYS_WRITE
    syscall
    cmp r12, 1
    je .argument
    print STDOUT, comma, 2
    jmp .argument
.end_of_arguments:
    print STDOUT, newline, 1

    mov rdi, file_name
    mov esi, O_RDWR_CREAT
    mov edx, 0o600
    mov eax, SYS_OPEN
    syscall
    mov r15d, eax
    print r15d, note, note_length
    mov edi, r15d
    xor esi, esi
    xor edx, edx
    mov eax, SYS_LSEEK
    syscall
    mov edi, r15d
    mov rsi, buffer
    mov edx, 4096
    mov eax, SYS_READ
    syscall
    mov rbx, rax
    print STDOUT, file_text, file_length
    print STDOUT, buffer, rbx

    print STDERR, error_text, error_length
    mov edi, 24
    mov eax, SYS_EXIT
    syscall
