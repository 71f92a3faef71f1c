program self_test
    use, intrinsic :: iso_fortran_env, only: error_unit
    implicit none
    integer :: number, total, status, i, note
    character(len=80) :: text

    total = 0
    do
        read (*, *, iostat=status) number
        if (status /= 0) exit
        total = total + number
    end do
    write (*, '(a, i0)') 'sum of stdin: ', total

    write (*, '(a)', advance='no') 'args: '
    do i = 1, command_argument_count()
        call get_command_argument(i, text)
        if (i > 1) write (*, '(a)', advance='no') ', '
        write (*, '(a)', advance='no') trim(text)
    end do
    write (*, *)

    open (newunit=note, file='note.txt', action='readwrite')
    write (note, '(a)') 'written by Fortran'
    rewind (note)
    read (note, '(a)') text
    close (note)
    write (*, '(a)') 'file: '//trim(text)

    write (error_unit, '(a)') 'this line is not part of it'
    stop 23, quiet=.true.
end program self_test
