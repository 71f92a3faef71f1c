import Data.List (intercalate)
import System.Environment (getArgs)
import System.Exit (ExitCode (ExitFailure), exitWith)
import System.IO (hPutStrLn, stderr)

main :: IO ()
main = do
    numbers <- map read . lines <$> getContents
    putStrLn ("sum of stdin: " ++ show (sum numbers :: Int))
    args <- getArgs
    putStrLn ("args: " ++ intercalate ", " args)
    writeFile "note.txt" "written by Haskell\n"
    note <- readFile "note.txt"
    putStr ("file: " ++ note)
    hPutStrLn stderr "this line is not part of it"
    exitWith (ExitFailure 18)
