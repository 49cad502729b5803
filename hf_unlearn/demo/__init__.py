"""The page on which a person tries the models of runs side by side; nothing leaves the machine that it runs on."""
